"""ImageScope's XML, written here from the format's description, and what must be refused."""

import numpy as np
import pytest
import shapely

from pathzoo.errors import DataError
from pathzoo.wsi.annotations import read_areas
from pathzoo.wsi.imagescope import read_imagescope


def region(points, kind=0, negative=0, number=1) -> str:
    vertices = "".join(f'<Vertex X="{x}" Y="{y}" Z="0"/>' for x, y in points)
    return (
        f'<Region Id="{number}" Type="{kind}" Zoom="0.1" NegativeROA="{negative}" Text=""><Attributes/>'
        f"<Vertices>{vertices}</Vertices></Region>"
    )


def layer(*regions, name="", color=65280, attributes="") -> str:
    return (
        f'<Annotation Id="1" Name="{name}" ReadOnly="0" Type="4" LineColor="{color}" Visible="1">'
        f"<Attributes>{attributes}</Attributes><Regions><RegionAttributeHeaders/>{''.join(regions)}</Regions>"
        "<Plots/></Annotation>"
    )


def written(tmp_path, *layers, head='<?xml version="1.0" encoding="UTF-8"?>'):
    path = tmp_path / "a.xml"
    path.write_text(f'{head}<Annotations MicronsPerPixel="0.25">{"".join(layers)}</Annotations>')
    return path


SQUARE = [(10, 20), (50, 20), (50, 60), (10, 60)]


def test_outlines_rectangles_and_ellipses(tmp_path):
    path = written(
        tmp_path,
        layer(
            region(SQUARE),
            region([(0, 0), (10, 0), (10, 5), (0, 5)], kind=1),
            region([(100, 100), (120, 110)], kind=1),
            region([(200, 300), (260, 340)], kind=2),
            region([(0, 0), (90, 90)], kind=3),
            region([(0, 0), (90, 90)], kind=0),
            name="Tumour",
        ),
    )
    found = read_imagescope(path)
    assert {name for _, name in found} == {"Tumour"}
    square, rectangle, two_corners, ellipse = (area for area, _ in found)  # neither the arrow nor the line
    assert square.equals(shapely.box(10, 20, 50, 60))
    assert rectangle.equals(shapely.box(0, 0, 10, 5))
    assert two_corners.equals(shapely.box(100, 100, 120, 110))
    assert ellipse.area == pytest.approx(np.pi * 30 * 20, rel=0.01)
    np.testing.assert_allclose(ellipse.bounds, (200, 300, 260, 340), atol=0.15)
    x, y = shapely.get_coordinates(ellipse).T
    np.testing.assert_allclose(((x - 230) / 30) ** 2 + ((y - 320) / 20) ** 2, 1)


def test_negative_regions_are_holes_of_their_layer_alone(tmp_path):
    hole = [(20, 30), (30, 30), (30, 40), (20, 40)]
    path = written(
        tmp_path,
        layer(region(hole, negative=1), region(SQUARE), region([(80, 80), (90, 80), (90, 90)]), name="a"),
        layer(region(SQUARE), name="b"),
        layer(region(SQUARE), region([(0, 0), (99, 0), (99, 99), (0, 99)], negative=1), name="c"),
    )
    (pierced, triangle, whole) = read_imagescope(path)
    assert pierced[1] == "a" and pierced[0].equals(shapely.box(10, 20, 50, 60) - shapely.box(20, 30, 30, 40))
    assert triangle[0].area == 50
    assert whole[1] == "b" and whole[0].area == 1600  # nothing is left of layer c


def test_classes_come_from_name_attribute_or_colour(tmp_path):
    described = '<Attribute Name="Description" Id="0" Value="Stroma"/>'
    classed = described + '<Attribute Name="class" Id="1" Value=" Necrosis "/>'
    path = written(
        tmp_path,
        layer(region(SQUARE), name=" Tumour ", attributes=described),
        layer(region(SQUARE), attributes=classed),
        layer(region(SQUARE), attributes=described),
        layer(region(SQUARE), color=0x0000FF),  # blue, green, red
        layer(region(SQUARE), color=0x20A0C0),
        layer(region(SQUARE)).replace('LineColor="65280"', ""),
    )
    names = [name for _, name in read_imagescope(path)]
    assert names == ["Tumour", "Necrosis", "Stroma", "#ff0000", "#c0a020", None]


def test_a_crossing_outline_is_repaired(tmp_path):
    bow = [(0, 0), (4, 4), (4, 0), (0, 4)]
    ((area, _),) = read_imagescope(written(tmp_path, layer(region(bow), name="a")))
    assert area.is_valid and area.area == 8


def test_the_bounds_are_added_to_geojson_alone(tmp_path):
    path = written(tmp_path, layer(region(SQUARE), name="a"))
    assert read_areas(path, (1000, 2000))[0][0].bounds == (10, 20, 50, 60)
    other = tmp_path / "b.geojson"
    ring = [[0, 0], [4, 0], [4, 4], [0, 0]]
    other.write_text(f'[{{"type": "Feature", "geometry": {{"type": "Polygon", "coordinates": [{ring}]}}}}]')
    assert read_areas(other, (1000, 2000))[0][0].bounds == (1000, 2000, 1004, 2004)
    with pytest.raises(DataError, match=r"a\.txt: annotations end in"):
        read_areas(tmp_path / "a.txt")


def test_other_encodings(tmp_path):
    path = tmp_path / "a.xml"
    text = (
        '<?xml version="1.0" encoding="UTF-16"?><Annotations>' + layer(region(SQUARE), name="Ödem") + "</Annotations>"
    )
    path.write_bytes(text.encode("utf-16"))
    assert read_imagescope(path)[0][1] == "Ödem"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not XML"),
        ("<Annotations><Annotation>", "not XML"),
        ('<?xml version="1.0" encoding="klingon"?><Annotations/>', "not XML"),
        ("<svg/>", "not ImageScope's XML: the outermost element is 'svg'"),
        (
            f"<Annotations>{layer(region([(1, 'left'), (2, 3)]))}</Annotations>",
            "layer 1, region 1, vertex 1: Y is 'left'",
        ),
        (f"<Annotations>{layer(region(SQUARE), region([('nan', 1)]))}</Annotations>", "region 2, vertex 1: X is 'nan'"),
        (f"<Annotations>{layer(region(SQUARE, kind='x'))}</Annotations>", "region 1: Type is 'x', not a number"),
        (f"<Annotations>{layer(region(SQUARE), color='red')}</Annotations>", "layer 1: LineColor is 'red'"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, text, message):
    path = tmp_path / "bad.xml"
    path.write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        read_imagescope(path)
    assert "bad.xml" in str(caught.value) and "\n" not in str(caught.value)


def test_no_document_type_is_read(tmp_path):
    """Neither entities that grow without bounds nor files of the machine."""
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10 if n else "lol" * 10}">' for n in range(10))
    heads = [
        f"<!DOCTYPE Annotations [{entities}]>",
        '<!DOCTYPE Annotations SYSTEM "file:///etc/hostname">',
        '<!DOCTYPE Annotations [<!ENTITY e SYSTEM "file:///etc/hostname">]>',
    ]
    for head in heads:
        for encoding in ("utf-8", "utf-16", "cp037"):
            path = tmp_path / "bad.xml"
            text = f'<?xml version="1.0" encoding="{encoding}"?>{head}<Annotations><A>&e9;</A></Annotations>'
            path.write_bytes(text.encode(encoding))
            with pytest.raises(DataError, match=r"bad\.xml: (has a document type|not XML)"):
                read_imagescope(path)
    with pytest.raises(DataError, match=r"none\.xml: no such file"):
        read_imagescope(tmp_path / "none.xml")
