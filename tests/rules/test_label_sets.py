"""The label sets keep their ids: models and gold standards are written for them."""

from __future__ import annotations

import pytest

from reportlabel.rulebook.load import Rulebook

FIXED = {
    "lung_ct": """
        nodule_or_mass ground_glass consolidation atelectasis cavity emphysema interstitial_lung_disease pneumonia
        bronchial_stenosis pleural_effusion pleural_thickening_or_plaque lymphadenopathy lung_cancer
        lymph_node_metastasis pulmonary_metastasis liver_metastasis adrenal_metastasis bone_metastasis brain_metastasis
        pleural_or_chest_wall_invasion mediastinal_invasion ascites gallstone cardiomegaly
        primary_size_mm primary_side primary_lobe
        """,
    "ct_rate_18": """
        medical_material arterial_wall_calcification cardiomegaly pericardial_effusion
        coronary_artery_wall_calcification hiatal_hernia lymphadenopathy emphysema atelectasis lung_nodule lung_opacity
        pulmonary_fibrotic_sequela pleural_effusion mosaic_attenuation_pattern peribronchial_thickening consolidation
        bronchiectasis interlobular_septal_thickening
        """,
    "chexpert_14": """
        no_finding enlarged_cardiomediastinum cardiomegaly lung_lesion lung_opacity edema consolidation pneumonia
        atelectasis pneumothorax pleural_effusion pleural_other fracture support_devices
        """,
    "abdomen_ct": """
        liver_mass liver_cyst fatty_liver cirrhosis hepatocellular_carcinoma liver_metastasis gallstone cholecystitis
        bile_duct_dilatation pancreatic_mass pancreatic_cyst pancreatitis splenomegaly renal_mass renal_cyst
        urolithiasis hydronephrosis adrenal_mass ascites free_air bowel_obstruction appendicitis diverticulitis
        diverticulosis aortic_aneurysm lymphadenopathy peritoneal_dissemination hernia
        """,
    "brain_mri": """
        acute_infarction old_infarction white_matter_change intracranial_haemorrhage microbleed subdural_haematoma
        brain_atrophy hippocampal_atrophy brain_tumour brain_metastasis cerebral_aneurysm vascular_stenosis
        hydrocephalus sinusitis demyelination skull_fracture
        """,
    "bone_scintigraphy": """
        bone_metastasis degenerative_uptake fracture_uptake abnormal_uptake superscan
        n_metastases eod metastasis_sites
        """,
    "abdominal_ultrasound": """
        fatty_liver liver_mass liver_cyst liver_haemangioma gallstone gallbladder_polyp gallbladder_wall_thickening
        adenomyomatosis bile_duct_dilatation pancreatic_mass pancreatic_cyst renal_cyst urolithiasis hydronephrosis
        splenomegaly ascites poor_visualisation
        """,
}
EXACT = ("lung_ct", "ct_rate_18", "chexpert_14")
"""Public schemas and the reviewed set: no label more."""

MUST_EXIST = ("gi_fluoroscopy", "angiography_ivr", "pet_ct", "mammography", "skin_tumour")


def ids(shipped: Rulebook, name: str) -> list[str]:
    label_set = shipped.label_sets[name]
    return [entry.id for entry in (*label_set.findings, *label_set.values)]


@pytest.mark.parametrize("name", FIXED)
def test_the_fixed_ids_are_there(name: str, shipped: Rulebook) -> None:
    assert sorted(set(FIXED[name].split()) - set(ids(shipped, name))) == []


@pytest.mark.parametrize("name", EXACT)
def test_these_sets_have_no_other_id(name: str, shipped: Rulebook) -> None:
    assert sorted(ids(shipped, name)) == sorted(FIXED[name].split())


@pytest.mark.parametrize("name", MUST_EXIST)
def test_every_modality_class_has_a_set(name: str, shipped: Rulebook) -> None:
    assert len(ids(shipped, name)) >= 5
